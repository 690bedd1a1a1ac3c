"""`benchmarks.throughput.stream` on two nodes of one core each, with a worker on both."""

from benchmarks.throughput.stream import NODES, main

if __name__ == "__main__":
    main(NODES, "stream_nodes")
