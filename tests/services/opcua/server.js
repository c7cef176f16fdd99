// An OPC UA server for tests: node server.js FOLDER '{"port", "namespaces", "devices", "user", "security", ...}'.
// It reads commands as JSON lines and answers each with one line; the first line says that it is ready.
"use strict";
const readline = require("readline");
const path = require("path");
const modules = process.env.NODE_OPCUA;
const ua = require(path.join(modules, "node_modules", "node-opcua"));

const [folder, text] = process.argv.slice(2);
const given = JSON.parse(text);
const VARIANTS = { Double: ua.DataType.Double, Int64: ua.DataType.Int64, Boolean: ua.DataType.Boolean,
  String: ua.DataType.String, Int32: ua.DataType.Int32, UInt16: ua.DataType.UInt16, Float: ua.DataType.Float,
  UInt32: ua.DataType.UInt32, DateTime: ua.DataType.DateTime, Argument: ua.DataType.ExtensionObject, Variants: ua.DataType.Variant };

// What became of values here: kept in the queue of an item, folded into a later one before that, dropped by a
// full queue, sent (again, when asked for), acknowledged.
function counted() {
  const counts = { written: 0, queued: 0, folded: 0, dropped: 0, sent: 0, acknowledged: 0, texts: 0, flood_ms: 0 };
  const wrap = (of, name, what) => { const plain = of.prototype[name]; of.prototype[name] = function (...all) {
    return what.call(this, plain, all); }; };
  wrap(ua.MonitoredItem, "_enqueue_value", function (plain, all) { counts.queued += 1; return plain.apply(this, all); });
  wrap(ua.MonitoredItem, "_setOverflowBit", function (plain, all) { counts.dropped += 1; return plain.apply(this, all); });
  wrap(ua.MonitoredItem, "_on_value_changed_exception_based", function (plain, all) {
    if (this._coalesceTimer && this._pendingDataValue) counts.folded += 1;
    return plain.apply(this, all); });
  wrap(ua.Subscription, "_updateCounters", function (plain, all) {
    counts.sent += held(all[0]);
    return plain.apply(this, all); });
  wrap(ua.Subscription, "acknowledgeNotification", function (plain, all) {
    const message = this.getMessageForSequenceNumber(all[0]);
    if (message) { counts.acknowledged += held(message); counts.texts += held(message, (one) => one.value.value.value !== "" &&
      one.value.value.dataType === ua.DataType.String); }
    return plain.apply(this, all); });
  return counts;
}
const held = (message, which = () => true) => message.notificationData.reduce(
  (sum, one) => sum + ((one && one.monitoredItems) || []).filter(which).length, 0);

async function main() {
  const manager = new ua.OPCUACertificateManager({ rootFolder: path.join(folder, "pki"), automaticallyAcceptUnknownCertificate: !given.strict });
  await manager.initialize();
  const server = new ua.OPCUAServer({
    port: given.port, hostname: "127.0.0.1", resourcePath: "/", buildInfo: { productName: "tests" },
    serverCertificateManager: manager, userCertificateManager: manager,
    securityPolicies: [ua.SecurityPolicy.None, ua.SecurityPolicy.Basic256Sha256,
      ua.SecurityPolicy.Aes128_Sha256_RsaOaep, ua.SecurityPolicy.Aes256_Sha256_RsaPss],
    securityModes: [ua.MessageSecurityMode.None, ua.MessageSecurityMode.Sign, ua.MessageSecurityMode.SignAndEncrypt],
    allowAnonymous: !given.user,
    userManager: { isValidUser: (user, password) => user === given.user && password === given.password },
    serverCapabilities: { maxSessions: 50, maxMonitoredItems: 200000, maxMonitoredItemsPerSubscription: 200000,
      // 0: every change is told. The default, 50 ms, folds what changes twice within it, without an overflow bit
      minSupportedSampleRate: given.fold || 0,
      operationLimits: { maxMonitoredItemsPerCall: 10000 } },
  });
  const counts = counted();
  await server.initialize();
  const space = server.engine.addressSpace;
  const found = {};
  for (const uri of given.namespaces) space.registerNamespace(uri);
  const home = space.getNamespace(given.home);
  const objects = {};
  // more: {analog: {low, high, unit}, enum: [names], enumValues: {name: number}, states: [false, true], multi: [names]}
  function add(device, metric, kind, value, more = {}) {
    const root = space.rootFolder.objects;
    objects[device] = objects[device] || home.addObject({ organizedBy: root, browseName: device, nodeId: `s=${device}` });
    const rank = Array.isArray(value) ? 1 : -1;
    const as = { componentOf: objects[device], browseName: metric, nodeId: `s=${device}.${metric}`,
      dataType: kind === "Variants" ? "BaseDataType" : kind, valueRank: rank, arrayDimensions: rank > 0 ? [value.length] : undefined, minimumSamplingInterval: 0 };
    const plain = () => (more.enum ? home.addVariable({ ...as, dataType: enumeration(metric, more.enum) }) : home.addVariable(as));
    const node = more.analog ? home.addAnalogDataItem({ ...as, engineeringUnitsRange: more.analog,
        instrumentRange: more.analog, engineeringUnits: ua.standardUnits[more.analog.unit] })
      : more.states ? home.addTwoStateDiscrete({ ...as, falseState: more.states[0], trueState: more.states[1] })
      : more.multi ? home.addMultiStateDiscrete({ ...as, enumStrings: more.multi, value: 0 })
      : more.enumValues ? home.addMultiStateValueDiscrete({ ...as, value: Object.values(more.enumValues)[0],
        enumValues: Object.entries(more.enumValues).map(([displayName, one]) => ({ displayName, value: one })) })
      : plain();
    found[`${device}.${metric}`] = { node, kind };
    set(`${device}.${metric}`, value);
  }
  function enumeration(name, names) { // a data type of its own, named after its first variable
    return home.addEnumerationType({ browseName: `${name}Type`, enumeration: names }).nodeId;
  }
  function set(name, value, at, status) {
    const { node, kind } = found[name];
    const array = Array.isArray(value);
    const when = at ? new Date(at) : new Date();
    node.setValueFromSource({ dataType: VARIANTS[kind], arrayType: array ? ua.VariantArrayType.Array : ua.VariantArrayType.Scalar,
      value: valued(kind, value) },
      ua.StatusCodes[status || "Good"], when);
  }
  function valued(kind, value) {
    if (kind === "Double") return Array.isArray(value) ? Float64Array.from(value.map(Number)) : Number(value);
    if (kind === "Int64" && !Array.isArray(value)) return ua.coerceInt64(value);
    if (kind === "DateTime") return new Date(value);
    if (kind === "Argument") return new ua.Argument({ name: value, dataType: "i=11", valueRank: -1 });
    if (kind === "Variants") return value.map((one) => new ua.Variant({ dataType: ua.DataType.Double, value: one }));
    return value;
  }
  const waiting = {};
  function flush() {
    for (const [name, texts] of Object.entries(waiting)) {
      if (!found[name] || !found[name].node.listenerCount("value_changed")) continue;
      for (const text of texts) set(name, text);
      delete waiting[name];
    }
  }
  setInterval(flush, 10);
  for (const one of given.nodes) add(...one);
  await server.start();
  const say = (one) => process.stdout.write(JSON.stringify(one) + "\n");
  say({ ready: true, certificate: server.getCertificate().toString("hex") });
  readline.createInterface({ input: process.stdin }).on("line", async (line) => {
    const command = JSON.parse(line);
    try {
      if (command.set) for (const one of command.set) set(...one);
      if (command.remove) { space.deleteNode(found[command.remove].node); delete found[command.remove]; }
      if (command.add) add(...command.add);
      if (command.flood) { // {every: ms, ticks}: every node gets a new value at each tick; late ones follow each other
        let tick = 0;
        const names = Object.keys(found).filter((name) => found[name].kind === "Double");
        const began = Date.now();
        const step = () => {
          tick += 1;
          const now = new Date();
          counts.written += names.length;
          for (const name of names) found[name].node.setValueFromSource(
            { dataType: ua.DataType.Double, value: tick }, ua.StatusCodes.Good, now);
          const wait = began + tick * command.flood.every - Date.now();
          counts.flood_ms = Date.now() - began;
          if (tick < command.flood.ticks) setTimeout(step, Math.max(1, wait));
        };
        setTimeout(step, 0);
      }
      if (command.send) { // texts for a node, one after the other, as soon as somebody listens to it
        waiting[command.send] = (waiting[command.send] || []).concat(command.texts);
        flush();
      }
      if (command.counts) { say({ ok: true, ...counts }); return; }
      if (command.stop) { await server.shutdown(0); say({ ok: true }); process.exit(0); }
      say({ ok: true });
    } catch (error) { say({ error: String(error && error.stack) }); }
  }).on("close", () => process.exit(0));
}
main().catch((error) => { console.error(error); process.exit(1); });
