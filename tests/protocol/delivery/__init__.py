"""The model of live events that are read from the event log: README.md, part 6; searched by ../direct.py.

world.py       what is stored, what is true, and what is checked in every state
rules.py       the rules, each of which can be left out
tail.py        what a replica of the API has in memory of the log, and what it may conclude from it
dispatcher.py  copies, markers, the position
client.py      asking for the next message, acknowledging
stream.py      messages over one answer that does not end
"""
