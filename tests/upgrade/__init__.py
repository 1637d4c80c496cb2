"""Upgrades: brokers of the commit named in FROM work together with those of this one."""
