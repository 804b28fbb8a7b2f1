//! gRPC channels: who is there, who is asked, how often, and when nobody is asked any more.
