"""Everything that touches tensors in a run. Private: nothing here is an interface."""
