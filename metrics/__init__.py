"""The metrics of dislab, one file each: functions of a code table and a random generator."""
