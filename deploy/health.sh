#!/bin/sh
# shallot-health CHECK…: a container's health check, which runs at every interval. A container that is not well yet is asked often, so that an ordered start does not wait; one that was well
# the last time is asked every quarter of a minute, since each check is a program's start, and a node has a dozen containers. Docker has start_interval for this from version 25 on, and the
# engines before refuse it.
set -u
was_well=/tmp/shallot-health
"$@" || { code=$?; rm -f "$was_well"; exit "$code"; }
if [ -e "$was_well" ]; then
  exec sleep 13
fi
(: >"$was_well") 2>/dev/null || true # where that cannot be kept it is asked often
