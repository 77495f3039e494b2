// What npm's @stellar/stellar-base makes of our envelopes: reads {passphrase, envelopes} on stdin, says what it decoded.
const { StrKey, TransactionBuilder, xdr } = require("@stellar/stellar-base");

const hex = (key) => StrKey.decodeEd25519PublicKey(key).toString("hex");
const stroops = (amount) => BigInt(amount.replace(".", "")).toString();

function operation(found) {
  const said = { type: found.type };
  if (found.source) said.source = hex(found.source);
  if (found.destination) said.destination = hex(found.destination);
  if (found.amount) said.stroops = stroops(found.amount);
  if (found.startingBalance) said.stroops = stroops(found.startingBalance);
  if (found.asset) said.asset = found.asset.getCode();
  if (found.masterWeight !== undefined) said.masterWeight = found.masterWeight;
  if (found.lowThreshold !== undefined)
    said.thresholds = [found.lowThreshold, found.medThreshold, found.highThreshold];
  if (found.signer) {
    const { ed25519PublicKey, preAuthTx, weight } = found.signer;
    said.signer = { key: ed25519PublicKey ? hex(ed25519PublicKey) : preAuthTx.toString("hex"), weight };
    said.signer.kind = ed25519PublicKey ? "key" : "preauth";
  }
  return said;
}

function envelope(encoded, passphrase) {
  const found = TransactionBuilder.fromXDR(encoded, passphrase);
  const { minTime, maxTime } = found.timeBounds;
  const bounds = found.ledgerBounds;
  return {
    hash: found.hash().toString("hex"),
    source: hex(found.source),
    sequence: found.sequence,
    fee: Number(found.fee),
    memo: found.memo.type === "hash" ? found.memo.value.toString("hex") : found.memo.type,
    time: [Number(minTime), Number(maxTime)],
    ledgers: bounds ? [bounds.minLedger, bounds.maxLedger] : null,
    minSequence: found.minAccountSequence ?? null,
    locks: (found.extraSigners ?? []).map((key) => key.hashX().toString("hex")),
    operations: found.operations.map(operation),
    signatures: found.signatures.map((each) => each.signature().toString("hex")),
    same: found.toEnvelope().toXDR("base64") === encoded,
  };
}

const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(asked.envelopes.map((each) => envelope(each, asked.passphrase))));
