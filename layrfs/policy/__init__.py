"""Decisions: values in, values out. No clock, socket, disk or dice; time and randomness are arguments."""
