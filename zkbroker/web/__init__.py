"""Status page and metrics. Empty until its issue is taken; STATUS of the line protocol serves people meanwhile."""
