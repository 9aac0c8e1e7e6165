"""Engines on the machines of a Ray cluster: ``ray`` joins it and places them, ``host`` is the actor, ``link`` the way to it."""
