"""For tests: a simulated node with an oracle, a builder of journals, and a pytest plugin.

Everything here lives in virtual time and memory: no test that uses it touches a disk it was not
given, sleeps, or needs root. Data flows as on a real node: the simulated world is seen by
a simulated inspector, what it sees goes through the real engine, and what it asks for changes the
world.
"""
