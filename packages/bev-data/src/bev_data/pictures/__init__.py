"""The parts of a sample's picture; `bev_data.pictures.page` puts them together."""
