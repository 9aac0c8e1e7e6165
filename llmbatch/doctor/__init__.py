"""What is looked at before a run goes wrong; a new look is a file here, or a function in one, and a line in this table."""

CHECKS = {
    "software": "llmbatch.doctor.software:software",
    "builds": "llmbatch.doctor.software:builds",
    "engines": "llmbatch.doctor.engines:engines",
    "extras": "llmbatch.doctor.software:extras",
    "devices": "llmbatch.doctor.machine:devices",
    "memory": "llmbatch.doctor.machine:memory",
    "disk": "llmbatch.doctor.machine:disk",
    "hub": "llmbatch.doctor.hub:hub",
    "limits": "llmbatch.doctor.machine:limits",
    "clock": "llmbatch.doctor.machine:clock",
}
