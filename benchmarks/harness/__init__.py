"""What every scenario is made of: servers, clients, interleaved blocks, statistics, reports."""
