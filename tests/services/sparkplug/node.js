// An edge node by Eclipse Tahu's sparkplug-client: `node node.js '{"url", "group", "node", "device", "metrics"}'`.
// metrics: [[name, type, value]]. Commands are lines of JSON on stdin: {"data": {name: value}, "at": ms},
// {"death": true}; each is answered with {"ok"}. Births are told when it is connected, and when it is asked.
const { createRequire } = require("module");
const from = createRequire(process.env.SPARKPLUG_NODE + "/package.json");
const { newClient } = from("sparkplug-client");
const given = JSON.parse(process.argv[2]);
const client = newClient({
  serverUrl: given.url, username: "", password: "", clientId: `${given.group}-${given.node}`,
  groupId: given.group, edgeNode: given.node, version: "spBv1.0", publishDeath: true,
});
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const types = new Map(given.metrics.map(([name, type], at) => [name, [type, at + 10]]));
const values = new Map(given.metrics.map(([name, , value]) => [name, value]));
let asked = 0;

function bear() {
  const timestamp = Date.now();
  client.publishNodeBirth({ timestamp, metrics: [
    { name: "Node Control/Rebirth", type: "Boolean", value: false, timestamp },
    { name: "model", type: "String", value: "tahu", timestamp },
  ] });
  client.publishDeviceBirth(given.device, { timestamp, metrics: [...types].map(([name, [type, alias]]) => (
    { name, alias, type, value: values.get(name), timestamp })) });
}

client.on("birth", () => { bear(); say({ ready: true }); });
client.on("ncmd", (payload) => {
  if (payload.metrics.some((one) => one.name === "Node Control/Rebirth" && one.value)) { asked += 1; bear(); }
});
client.on("error", (error) => say({ error: String(error) }));
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  const timestamp = command.at || Date.now();
  if (command.data) {
    const metrics = Object.entries(command.data).map(([name, value]) => {
      values.set(name, value);
      const [type, alias] = types.get(name);
      return { alias, type, value, timestamp };
    });
    client.publishDeviceData(given.device, { timestamp, metrics });
  }
  if (command.death) client.publishDeviceDeath(given.device, { timestamp });
  say({ ok: true, asked });
}).on("close", () => process.exit(0));
