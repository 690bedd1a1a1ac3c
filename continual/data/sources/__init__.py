"""The kinds of data source. They import neither torch, ray, datasets nor pyarrow: a YAML is checked with them."""
