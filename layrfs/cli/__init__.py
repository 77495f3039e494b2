"""Parsing arguments and rendering answers, nothing else: one module for each command, imported when it is used."""
