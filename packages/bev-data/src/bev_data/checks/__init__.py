"""Checks of a data root: its tables, its files, and whether lidar, boxes and images fit each other."""

from bev_data.checks.problem import Problem
from bev_data.checks.report import Report
from bev_data.checks.run import check_version

__all__ = ["Problem", "Report", "check_version"]
