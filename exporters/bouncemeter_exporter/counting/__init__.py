"""Entries become facts about recipients, and facts become counts."""
