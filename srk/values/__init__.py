"""Values: what may be remembered, because nothing can change it unseen.

Plans, times and kernels are numbers made from a process, a solver and a grid. Making them
again for every run costs milliseconds, so the last ones are remembered, under a key that is
equal only where everything that the result depends on is equal. `value` makes such a key, or
refuses: numbers, strings and tuples are values; so is an object whose attributes, and whose
class with all that its methods read, are values. A tensor, an array, a list or a dictionary
can change in place, and an object of another library can hold anything, so that whatever
contains one of them is not remembered at all.
"""

from srk.values.key import unchanging, value
from srk.values.reads import NotAValue
from srk.values.remembered import Remembered, size_of

__all__ = ["NotAValue", "Remembered", "size_of", "unchanging", "value"]
