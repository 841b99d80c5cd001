"""NumPy backend: one module per family of modes.

Every kernel works on one block: a few planes, or a row band of one plane, of shape
``(outer, D1..Dn, inner)``, small enough to stay in cache. Spatial axis `a` of a block is
array axis `a + 1`.
"""
