"""The gateway's side of metering: reports requests to a meter and receives their joules."""
