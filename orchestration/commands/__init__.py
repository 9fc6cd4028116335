"""The commands of `geoloc`, one file each."""
