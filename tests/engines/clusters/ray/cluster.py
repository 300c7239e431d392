"""Runs a Ray cluster on this machine, a head without cores and two nodes with one core each, prints its address, and stops it at the
end of stdin."""

import sys

from ray.cluster_utils import Cluster

NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20, "include_dashboard": False}

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
for _ in range(2):
    cluster.add_node(num_cpus=1, **NODE)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
