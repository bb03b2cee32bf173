#!/usr/bin/env bash
# Prints the path of a real S3 server for tests (versitygw).  Exit code 3: no Go to build it.
exec "$(dirname "$0")/go-tool.sh" versitygw 1.8.0 github.com/versity/versitygw/cmd/versitygw
