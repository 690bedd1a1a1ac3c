"""`benchmarks.throughput.sampling` with a model of 23M parameters, whose forward pass takes most of a step."""

from benchmarks.throughput.sampling import main

if __name__ == "__main__":
    main("larger", "sampling_larger")
