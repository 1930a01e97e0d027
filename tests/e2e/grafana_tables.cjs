// What Grafana's own code makes of tables. Reads [{panel, frames}], frames as its Prometheus source
// makes them, and prints {units, tables}: every unit that it knows, and heads and texts of each table.

const { JSDOM } = require("jsdom");
const { window } = new JSDOM("", { url: "http://localhost/" });
Object.assign(globalThis, { window, document: window.document, navigator: window.navigator });
const grafana = require("@grafana/data");
const { lastValueFrom } = require("rxjs");

const transformers = [...new Set(Object.values(grafana.standardTransformers))];
grafana.standardTransformersRegistry.setInit(() =>
  transformers.map((one) => ({ id: one.id, name: one.name, transformation: one })),
);
grafana.standardFieldConfigEditorRegistry.setInit(() =>
  ["unit", "decimals", "min", "max", "displayName", "thresholds", "mappings"].map((id) => ({
    id,
    path: id,
    name: id,
    process: (value) => value,
    shouldApply: () => true,
  })),
);
const theme = grafana.createTheme();

async function show({ panel, frames }) {
  const joined = grafana.transformDataFrame(panel.transformations, frames.map(grafana.toDataFrame));
  const [frame, ...others] = grafana.applyFieldOverrides({
    data: await lastValueFrom(joined),
    fieldConfig: panel.fieldConfig,
    replaceVariables: (text) => text,
    theme,
    fieldConfigRegistry: grafana.standardFieldConfigEditorRegistry,
  });
  const say = (field, value) =>
    value == null ? "" : grafana.formattedValueToString(field.display(value));
  return {
    frames: 1 + others.length,
    heads: frame.fields.map((field) => grafana.getFieldDisplayName(field, frame)),
    rows: Array.from({ length: frame.length }, (_, row) =>
      frame.fields.map((field) => say(field, field.values[row])),
    ),
  };
}

async function main(asked) {
  const units = grafana.getValueFormats().flatMap((group) => group.submenu.map((one) => one.value));
  console.log(JSON.stringify({ units, tables: await Promise.all(asked.map(show)) }));
}

let text = "";
process.stdin.on("data", (piece) => (text += piece)).on("end", () => main(JSON.parse(text)));
