// Shows the broker's OpenAPI document, and sends requests to the broker that serves it.
"use strict";

const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

const resolve = (api, schema) =>
  schema && schema.$ref ? schema.$ref.split("/").slice(1).reduce((at, part) => at[part], api) : schema;

/** An example of what a schema describes. */
function example(api, given, depth = 0) {
  const schema = resolve(api, given);
  if (!schema || depth > 6) return null;
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((part) => example(api, part, depth + 1)));
  const choices = schema.oneOf || schema.anyOf;
  if (choices) return example(api, choices.find((choice) => choice.type !== "null") || choices[0], depth + 1);
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type;
  if (type === "object" || schema.properties) {
    const fields = Object.entries(schema.properties || {});
    return Object.fromEntries(fields.map(([name, field]) => [name, example(api, field, depth + 1)]));
  }
  if (type === "array") return [example(api, schema.items, depth + 1)];
  if (type === "integer" || type === "number") return schema.minimum ?? 0;
  if (type === "boolean") return false;
  return schema.format === "date-time" ? new Date().toISOString() : "";
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.oneOf || schema.anyOf) return (schema.oneOf || schema.anyOf).map(typeOf).join(" | ");
  const type = [].concat(schema.type || "object").join(" | ");
  return schema.items ? `${type} of ${typeOf(schema.items)}` : type;
}

function table(head, rows) {
  const row = (cells, kind) => make("tr", {}, ...cells.map((cell) => make(kind, {}, cell)));
  return make("table", {}, row(head, "th"), ...rows.map((cells) => row(cells, "td")));
}

function describe(api, path, method, operation) {
  const parameters = operation.parameters || [];
  const inputs = parameters.map((parameter) => make("input", {
    placeholder: parameter.required ? "required" : "", ariaLabel: parameter.name,
  }));
  const details = make("details", {}, make("summary", {},
    make("code", { className: "method", textContent: method.toUpperCase() }), make("code", { textContent: path }),
    make("span", { textContent: operation.summary || "" })));
  details.dataset.text = `${method} ${path} ${operation.summary || ""}`.toLowerCase();
  if (operation.description) details.append(make("p", { textContent: operation.description }));
  if (parameters.length) {
    details.append(table(["Parameter", "In", "Type", "", "Value"], parameters.map((parameter, index) => [
      parameter.name, parameter.in, typeOf(parameter.schema), parameter.description || "", inputs[index]])));
  }
  const content = operation.requestBody && operation.requestBody.content;
  const media = content && Object.keys(content)[0];
  const body = media && make("textarea", { spellcheck: false, ariaLabel: "body" });
  if (body) {
    if (media === "application/json") body.value = JSON.stringify(example(api, content[media].schema), null, 2);
    details.append(make("p", { textContent: `Body: ${media}` }), body);
  }
  details.append(table(["Status", "", "Body"], Object.entries(operation.responses).map(([status, response]) => {
    const [kind, shape] = Object.entries(response.content || {})[0] || ["", {}];
    return [status, response.description || "", kind && `${kind}: ${typeOf(shape.schema)}`];
  })));
  const answer = make("pre", { hidden: true });
  const send = make("button", { textContent: "Send", type: "button" });
  send.addEventListener("click", async () => {
    const headers = {};
    let url = path;
    const query = new URLSearchParams();
    parameters.forEach((parameter, index) => {
      const value = inputs[index].value;
      if (!value) return;
      if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(value));
      if (parameter.in === "query") query.set(parameter.name, value);
      if (parameter.in === "header") headers[parameter.name] = value;
    });
    const token = document.getElementById("token").value;
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body) headers["Content-Type"] = media;
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const search = query.size ? `?${query}` : "";
      const response = await fetch(url + search, { method: method.toUpperCase(), headers, body: body && body.value });
      const text = await response.text();
      const json = (response.headers.get("Content-Type") || "").includes("json") && text;
      const shown = json ? JSON.stringify(JSON.parse(text), null, 2) : text;
      answer.textContent = `${response.status} ${response.statusText}\n\n${shown}`;
    } catch (error) {
      answer.textContent = `${error}`;
    }
  });
  details.append(make("p", {}, send), answer);
  return details;
}

async function show() {
  const api = await (await fetch("/openapi.json")).json();
  document.getElementById("about").textContent = `${api.info.description} Version ${api.info.version}.`;
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const tag = (operation.tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(describe(api, path, method, operation));
    }
  }
  const main = document.getElementById("operations");
  for (const [tag, operations] of groups) {
    main.append(make("section", {}, make("h2", { textContent: tag }), ...operations));
  }
  const find = document.getElementById("find");
  find.addEventListener("input", () => {
    for (const details of main.querySelectorAll("details")) {
      details.hidden = !details.dataset.text.includes(find.value.toLowerCase());
    }
  });
}

show().catch((error) => { document.getElementById("about").textContent = `${error}`; });
