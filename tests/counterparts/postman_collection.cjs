// Converts OpenAPI documents into Postman collections with Postman's own converter: `[[name, document], …]` on standard
// input, `{name: collection or null}` on standard output.
const { createRequire } = require("node:module");
const [modules] = process.argv.slice(2);
const converter = createRequire(modules + "/")("openapi-to-postmanv2");

const convert = (document) =>
  new Promise((resolve) => {
    converter.convertV2({ type: "json", data: document }, { schemaFaker: true }, (error, done) =>
      resolve(error || !done.result ? null : done.output[0].data),
    );
  });

(async () => {
  let text = "";
  for await (const piece of process.stdin) text += piece;
  const converted = {};
  for (const [name, document] of JSON.parse(text)) converted[name] = await convert(document);
  process.stdout.write(JSON.stringify(converted));
})();
