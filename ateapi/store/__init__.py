"""The store: transactional verbs over an engine."""
