"""One file per family of measurements that rules for attributes are written on."""
