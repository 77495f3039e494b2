"""The other front end beside FUSE: named commands over a unix socket. Knows no file system and no network."""
