"""Which of many tasks makes a real model forget which stories; see docs/associations.md."""
