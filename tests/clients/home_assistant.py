"""Home Assistant's own core and MQTT integration as the reader of what a node announces.

home_assistant.py PORT CONFIG_FOLDER; tests/clients/home-assistant starts it and acts between its phases.
"""

import asyncio
import logging
import pathlib
import sys
from types import MappingProxyType

from homeassistant import bootstrap, config_entries, core, loader
from homeassistant.const import __version__
from homeassistant.helpers import device_registry, entity_registry

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
DEADLINE_S = 60
# What a node `box` has with a sensor, an input and an output, in simulation.
EXPECTED = {
    "sensor_hall_temperature": lambda s: -40 <= float(s.state) <= 80 and s.attributes["unit_of_measurement"] == "°C",
    "sensor_hall_humidity": lambda s: 0 <= float(s.state) <= 100 and s.attributes["device_class"] == "humidity",
    "sensor_hall_failures": lambda s: float(s.state) >= 0,
    "health_outbox": lambda s: float(s.state) >= 0,
    "health_dropped": lambda s: float(s.state) == 0,
    "health_clock": lambda s: s.state in ("on", "off"),
    "input_door": lambda s: s.state in ("on", "off"),
    "output_fan": lambda s: s.state == "off",
}
ALARM = "humidor_alarm_hot"


class Complaints(logging.Handler):
    """What the integration has to say against our messages."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        if record.levelno >= logging.ERROR or record.name.startswith("homeassistant.components.mqtt"):
            self.said.append(record.getMessage() + (f": {record.exc_info[1]}" if record.exc_info else ""))


complaints = Complaints()


async def until(what, condition):
    for _ in range(DEADLINE_S * 10):
        if condition():
            print(f"ok: {what}", flush=True)
            return
        await asyncio.sleep(0.1)
    print(*complaints.said, sep="\n")
    sys.exit(f"waited {DEADLINE_S} s for: {what}")


async def main():
    logging.getLogger().addHandler(complaints)
    (pathlib.Path(FOLDER) / "configuration.yaml").touch()
    hass = core.HomeAssistant(FOLDER)
    hass.config.skip_pip = True
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    loader.async_setup(hass)
    await bootstrap.async_load_base_functionality(hass)
    # Only the upload of certificates in its dialogue needs these two, and they would open a port.
    for part in ("http", "file_upload"):
        hass.config.components.add(part)
    await bootstrap.async_setup_component(hass, "homeassistant", {})
    await hass.async_start()
    await hass.config_entries.async_add(
        config_entries.ConfigEntry(
            domain="mqtt", title="humidor", source="user", version=1, minor_version=2, unique_id=None, options={},
            data={"broker": "127.0.0.1", "port": PORT}, discovery_keys=MappingProxyType({}), subentries_data=None,
        )
    )

    entities, devices = entity_registry.async_get(hass), device_registry.async_get(hass)

    def found():
        return {e.unique_id.removeprefix("humidor_box_"): e.entity_id for e in entities.entities.values()}

    def state(key):
        return hass.states.get(found()[key]) if key in found() else None

    def believed(key, right):
        seen = state(key)
        try:
            return seen is not None and right(seen)
        except (KeyError, ValueError):
            return False

    await until("the integration is loaded", lambda: hass.config_entries.async_entries("mqtt")[0].state.name == "LOADED")
    await until("every entity is there with a state", lambda: all(believed(k, r) for k, r in EXPECTED.items()))
    unexpected = set(found()) - set(EXPECTED) - {ALARM}
    assert not unexpected, unexpected
    box = devices.async_get_device({("mqtt", "humidor_box")})
    print(f"Home Assistant {__version__}: {box.name}, {box.model}, {box.sw_version}: {sorted(found().values())}", flush=True)

    await hass.services.async_call("switch", "turn_on", {"entity_id": found()["output_fan"]}, blocking=True)
    await until("the output was switched on", lambda: state("output_fan").state == "on")
    if ALARM in found():
        await until("the alarm is on", lambda: state(ALARM).state == "on")

    print("stop the node", flush=True)
    await until("all is unavailable", lambda: all(state(k).state == "unavailable" for k in EXPECTED))
    print("forget the node", flush=True)
    await until("the device is gone", lambda: devices.async_get_device({("mqtt", "humidor_box")}) is None)
    await until("its entities are gone", lambda: not set(found()) & set(EXPECTED))
    assert not complaints.said, complaints.said
    print("passed", flush=True)
    await hass.async_stop(force=True)


asyncio.run(main())
