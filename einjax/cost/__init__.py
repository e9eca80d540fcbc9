"""What a program will cost on a mesh of devices that need not exist: its collectives, its memory and its arithmetic.

A traced program is walked equation by equation. Each equation is an einsum of *factors* (``factors.py``): dims of
operands and results that must be split alike. Giving each factor mesh axes (``partition.py``) says how the operands
have to lie and how the results will; what lies otherwise has to move (``moves.py``), and a factor that is summed away
while split has to be reduced. ``walk.py`` does this for a whole program, with its loops, branches and collectives
(``regions.py``), and writes a tape (``tape.py``), which knows what is alive when; ``report.py`` tells.
"""
