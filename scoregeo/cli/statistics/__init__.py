"""Commands about samples: ``mean``, ``pca``, ``cluster``, ``embed``, one file for each, imported when it is named."""
