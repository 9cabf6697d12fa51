"""The support bundle: what is known of this device in one file, without what opens anything."""
