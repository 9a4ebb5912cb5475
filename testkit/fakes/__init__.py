"""Stand-ins for disks, networks, servers and exchanges."""
