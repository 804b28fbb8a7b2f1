//! Registration, discovery, leases and dynamic configuration in etcd.
