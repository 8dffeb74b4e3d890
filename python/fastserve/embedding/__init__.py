"""The parts of fastserve.Engine: futures, loops, iterators of batches, Python backends, and the end of processes."""
