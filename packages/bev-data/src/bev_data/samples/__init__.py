"""From a key frame on disk to a batch: history, images, augmentation, lidar depth."""
