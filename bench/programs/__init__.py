"""Programs that the benchmark starts: servers, and contenders that are not packages."""
