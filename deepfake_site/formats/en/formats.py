"""How the admin writes a date and a time: as the rest of the site does, with the zone, which Django leaves out."""

DATE_FORMAT = "j M Y"
DATETIME_FORMAT = "j M Y, H:i T"
