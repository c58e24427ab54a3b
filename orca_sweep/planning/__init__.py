"""What a sweep will take and what it runs next: agenda, forecast, probe, and running a trial again to compare."""
