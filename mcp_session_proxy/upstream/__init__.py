"""The server's side: one transport, one owner per upstream session."""
