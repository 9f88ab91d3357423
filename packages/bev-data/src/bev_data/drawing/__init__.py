"""The parts of a sample's picture; `bev_data.draw` puts them together."""
