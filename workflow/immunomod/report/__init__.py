"""The report: one offline HTML file that answers first and shows its evidence after (:mod:`.build`)."""
