"""`python -m tests.services.asyncua_server PORT`: an OPC UA server of yet another maker (asyncua's own), in a
process of its own; its variables stand deeper than those of the other."""

from __future__ import annotations

import asyncio
import logging
import sys

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.server import Server

NAMESPACE = "urn:mill:example"


async def _motor(server: Server, line: Node, space: int, name: str, speed: float) -> None:
    motor = await line.add_object(space, name)
    variable = await motor.add_variable(space, "Speed", speed, ua.VariantType.Double)
    unit = ua.EUInformation("http://www.opcfoundation.org/UA/units/un/cefact", 5_394_509)  # RPM
    await variable.add_property(space, "EngineeringUnits", unit)
    await variable.add_property(space, "EURange", ua.Range(0.0, 3000.0))
    state = await motor.add_variable(space, "State", 1, ua.VariantType.Int32)
    names = [ua.LocalizedText("Off"), ua.LocalizedText("Running")]
    await state.add_property(space, "EnumStrings", names)
    await motor.add_variable(space, "Label", f"{name} of {line}", ua.VariantType.String)
    await motor.add_variable(space, "Curve", [0.0] * 100, ua.VariantType.Double)


async def _serve(port: int) -> None:
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/mill/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace(NAMESPACE)
    mill = await server.nodes.objects.add_folder(space, "Mill")
    for name in ("Line1", "Line2"):
        line = await mill.add_object(space, name)
        for speed, motor in enumerate(("MotorA", "MotorB")):
            await _motor(server, line, space, motor, 1000.0 + speed)
    async with server:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
