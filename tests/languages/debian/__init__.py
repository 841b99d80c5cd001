"""Programs whose gRPC comes from Debian; `make test-languages` installs the packages."""
