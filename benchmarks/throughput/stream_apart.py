"""`benchmarks.throughput.stream` on two nodes of one core each: the engine has one, a worker the other."""

from benchmarks.throughput.stream import APART, main

if __name__ == "__main__":
    main(APART, "stream_apart")
