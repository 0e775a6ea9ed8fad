"""Isolation of our processes from other ROS systems."""

import os
import subprocess
import sys

ISOLATE = """
import os, random, sys
from lightglue_ros.nodes.processes import isolate
random.sample = lambda *_: [int(domain) for domain in sys.argv[1:]]
isolate()
print(os.environ["ROS_DOMAIN_ID"])
"""


def test_two_programs_never_share_a_domain(ros):
    taken = os.environ["ROS_DOMAIN_ID"]
    free = str(int(taken) % 101 + 1)
    said = subprocess.check_output([sys.executable, "-c", ISOLATE, taken, free], text=True, timeout=60.0)
    assert said.strip() == free
