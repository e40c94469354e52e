"""What stands in deploy/: every file is checked by the tool that would read it, and what can run is run."""
